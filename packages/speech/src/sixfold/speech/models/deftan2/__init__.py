"""DeFTAN-II"""
