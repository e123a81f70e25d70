"""Versions of an app's code: what makes two the same, and where new work goes."""
