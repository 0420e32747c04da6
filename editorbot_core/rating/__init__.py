"""The rating page: an application and its static files."""
