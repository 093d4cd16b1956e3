# Teaching: slides, workshop, new chapters, notebooks for learners. Included by the Makefile, which says what BIN and STAMP are.

.PHONY: slides pdf workshop new-chapter learner

slides: book ## reveal.js decks of all chapters, in _build/html/slides
	$(BIN)/python tools/make_slides.py _build/html

pdf: book ## the whole book as one file, _build/book.pdf (needs Chromium or Chrome)
	$(BIN)/python tools/make_pdf.py

workshop: book ## student and instructor notebooks and the zips of a workshop, in _build/workshop
	$(BIN)/python tools/make_workshop.py

new-chapter: $(STAMP) ## NAME=15_some_idea [TITLE="Some idea"]: a chapter that runs and says TODO where words are missing
	@test -n "$(NAME)" || { echo 'say which: make new-chapter NAME=15_some_idea TITLE="Some idea"'; exit 2; }
	$(BIN)/python tools/new_chapter.py "$(NAME)" --title "$(TITLE)"

learner: book ## the notebooks that Colab opens, in colab/, with the numbers of the book
	$(BIN)/python tools/make_learner.py
