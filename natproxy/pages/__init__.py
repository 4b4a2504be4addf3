"""The HTML that natproxy shows to operators and developers. Pure."""
