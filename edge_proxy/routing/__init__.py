"""The routes file and the table that requests are matched against."""
