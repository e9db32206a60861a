"""Numbered migrations: 0001 creates the tables, later ones change them. Never edit one."""
