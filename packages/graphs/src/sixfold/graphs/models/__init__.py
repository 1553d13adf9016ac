"""The systems: ForwardGNN, Mowst and GNNPipe, a folder each; `stages` is a loop that two share."""
