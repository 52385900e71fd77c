"""From runs' files to tables, pictures and one page."""
