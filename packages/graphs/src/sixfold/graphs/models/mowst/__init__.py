"""Mowst"""
