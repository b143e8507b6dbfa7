"""Damaged inputs by the thousand: every reader answers with one line or with the right result."""
