"""The contract as tests: they speak only the wire and run against any build."""
