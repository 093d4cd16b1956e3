"""Drawings of the chapters: one module per chapter, named as the chapter."""
