"""The versions of ClickHouse that are tried: the same is done on each, beside the newest."""
