"""MossFormer2"""
