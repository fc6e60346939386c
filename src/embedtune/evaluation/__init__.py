"""Measuring systems, and the verdict: does the tuned model deserve to be shipped?"""
