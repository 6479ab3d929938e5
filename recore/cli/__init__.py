"""The command line: one small module per subcommand, each with `add(subparsers)` and `run(arguments)`."""
