"""What the report's words mean: sentences of docs/watching.md, which a test compares."""

from __future__ import annotations

DEFINITIONS = {
    "opened": "People who came to the video, whether or not they played it.",
    "played": "People who played some of it, or began to: its viewers.",
    "finished": "People whose player says that they completed it, or who watched as much of it as"
    " it asks for: all, unless it says less.",
    "sessions": "One viewing of a video, as its player reports it.",
    "minutes watched": "Each second of a video that a viewer played, counted once, over all"
    " sessions.",
    "with repeats": "The seconds played, counted each time.",
    "average share": "Watched, as a part of the video's length.",
    "first watch": "A viewer's first play of a place.",
    "rewatch": "Each further one.",
    "stopped at": "A viewer's last position in the last session that has one.",
    "seek": "A jump from one place to another that the player reports.",
}

LIMITS = (
    "The numbers say what a player played. They cannot say whether anybody looked.",
    "They do not prove that something was not watched: a player may not have sent it.",
)
