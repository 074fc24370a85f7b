"""One file a family of formats; each reader returns a frame in the log's own columns."""
