"""Lines of results, and the files that keep them through kills, resumes and merges."""
