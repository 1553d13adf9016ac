"""Tables as people have them: schema, vocabularies, readers, streams."""
