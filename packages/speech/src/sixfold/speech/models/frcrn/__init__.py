"""FRCRN"""
