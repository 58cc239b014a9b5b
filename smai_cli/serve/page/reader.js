// The reader of streams.
