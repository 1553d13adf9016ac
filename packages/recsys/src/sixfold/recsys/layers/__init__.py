"""What the systems share: input fields, embedding tables, multilayer perceptrons."""
