"""ForwardGNN"""
