"""The command line: words to functions; what they do lives elsewhere, imported when needed."""
