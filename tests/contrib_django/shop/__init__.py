"""The app of the tests."""
