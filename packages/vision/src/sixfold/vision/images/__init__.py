"""Pictures: files, colours, resizing, tiles."""
