"""One module of pictures per chapter, with the chapter's name; see :mod:`tutorial_lib.figures.common` for their rules."""
