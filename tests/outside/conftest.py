"""What lies in a folder here is run by the test beside it, in an environment of its own."""

collect_ignore = ["cluster", "langchain", "sdk"]
