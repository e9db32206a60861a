"""The numbered migrations: 0001 makes the tables, each later one changes them, none is edited."""
