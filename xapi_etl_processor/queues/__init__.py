"""Payloads and messages: what invokes the function, and what it sends."""
