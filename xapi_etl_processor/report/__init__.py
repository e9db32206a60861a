"""The report: what was watched in a section, as a page that anyone can open."""
