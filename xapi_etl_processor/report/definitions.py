"""What the report's words mean: sentences of docs/watching.md, which a test compares."""

from __future__ import annotations

DEFINITIONS = {
    "opened": "An account that sent a statement about a video.",
    "viewers": "An account that played some of it, or began to.",
    "sessions": "One viewing of a video, as its player reports it.",
    "watched": "Each second of a video that a viewer played, counted once, over all sessions.",
    "played": "The seconds played, counted each time.",
    "share": "Watched, as a part of the video's length.",
    "completed": "A statement says so, or the share watched is at least the completion threshold.",
    "first watch": "A viewer's first play of a place.",
    "rewatch": "Each further one.",
    "stopped": "A viewer's last position in the last session that has one.",
    "seek": "A jump from one place to another that the player reports.",
    "length": "The length that most statements about the video in the section send.",
}

LIMITS = (
    "The numbers say what a player played. They cannot say whether anybody looked.",
    "They do not prove that something was not watched: a player may not have sent it.",
)
