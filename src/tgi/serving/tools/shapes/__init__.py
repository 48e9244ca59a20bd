"""The few shapes that models' formats of calls have; a format is one of them with its own literals."""
