"""The status codes of the wire protocol: one table, from the contract's section 4.

Codes marked given come from the product's interface document and never change.
"""

from enum import IntEnum


class Status(IntEnum):
    """A status code as it stands in a reply; 1 is success, all else is not."""

    # Given
    SUCCESS = 1
    FAILURE = 0
    NULL_PASSWORD = 6000
    NULL_USERNAME = 6001
    NULL_AVATAR = 6002
    NULL_PHONE = 6003
    NULL_USER = 6004
    SAME_USERNAME = 7000
    SAME_PHONE = 7001
    FORMAT_ERROR_PHONE = 8000
    FORMAT_ERROR_PHONE_LENGTH = 8001
    FORMAT_ERROR_PASSWORD = 8002
    FORMAT_ERROR_PASSWORD_LENGTH = 8003
    FORMAT_ERROR_USER_LENGTH = 8004
    FORMAT_ERROR_FILE = 8005
    ILLEGAL_USERNAME = 9000
    ERROR_PASSWORD = 10000
    ERROR_REPEAT_LOGIN = 11000
    ERROR_NET = 11001

    # Added
    FORMAT_ERROR_AVATAR = 8006
    EXIST_FRIENDS = 12000
    MALFORMED = 4000
    TOO_LONG = 4001
    UNKNOWN_COMMAND = 4002
    BAD_FIELD = 4003
    NOT_ALLOWED = 4004
    NOT_FOUND = 4005
    LIMIT_REACHED = 4006
    DISK_FULL = 4007
    TOO_MANY = 4290
    INTERNAL = 5000
    RESTARTING = 5030


# What a reply says where the code that refuses has nothing better to say.
TEXTS: dict[Status, str] = {
    Status.SUCCESS: "ok",
    Status.FAILURE: "failed",
    Status.NULL_PASSWORD: "the password is empty",
    Status.NULL_USERNAME: "the username is empty",
    Status.NULL_AVATAR: "the avatar is missing",
    Status.NULL_PHONE: "the phone is empty",
    Status.NULL_USER: "no such user",
    Status.SAME_USERNAME: "this username is taken",
    Status.SAME_PHONE: "this phone is registered already",
    Status.FORMAT_ERROR_PHONE: "this is not a phone number",
    Status.FORMAT_ERROR_PHONE_LENGTH: "a phone has 11 digits, or + and up to 15",
    Status.FORMAT_ERROR_PASSWORD: "a password holds no control characters and not only blanks",
    Status.FORMAT_ERROR_PASSWORD_LENGTH: "a password has 6 to 64 characters and at most 72 bytes",
    Status.FORMAT_ERROR_USER_LENGTH: "a username has 1 to 15 characters",
    Status.FORMAT_ERROR_FILE: "the file's content is not usable",
    Status.FORMAT_ERROR_AVATAR: "an avatar is a picture that was saved with save_file",
    Status.ILLEGAL_USERNAME: "this username is not allowed",
    Status.ERROR_PASSWORD: "wrong password",
    Status.ERROR_REPEAT_LOGIN: "logged in already",
    Status.ERROR_NET: "log in first",
    Status.EXIST_FRIENDS: "you are friends already",
    Status.MALFORMED: "this line is not one JSON object",
    Status.TOO_LONG: "this line is too long",
    Status.UNKNOWN_COMMAND: "no such command",
    Status.BAD_FIELD: "a field is not usable",
    Status.NOT_ALLOWED: "not allowed",
    Status.NOT_FOUND: "not found",
    Status.LIMIT_REACHED: "a limit is reached",
    Status.DISK_FULL: "the disk is full; nothing was stored",
    Status.TOO_MANY: "too many requests",
    Status.INTERNAL: "internal error",
    Status.RESTARTING: "restarting",
}
