"""Images as integer arrays: named sets, folders, packed files and drawn shapes."""
