"""A saved model as a service: a page for people and a JSON API for programs, in one application.

What owns what:

- `loading.py` finds what a model's folder holds, `items/recorded.py` the encoder that made its catalogue's
  features. `server.py` binds an address and serves.
- `recommender.py` holds pipeline and catalogue as one state. A change builds a new state aside and swaps one
  reference, so that a request sees the old catalogue or the new one, never a mix. `worker.py` is the one thread that
  asks the model, for all that wait at once; `search.py` finds titles.
- `pictures.py` makes small JPEGs of the catalogue's pictures and checks those that are uploaded; `uploads.py` has the
  files of those that were chosen on the page and not added yet.
- `schemas.py` says what the API takes and gives, `api.py` has its routes, `forms.py` reads a new item's form,
  `limits.py` has what is refused before a route sees it: large bodies, foreign hosts and origins, what Gradio has and
  the page does without. Numbers and lengths are limited in `schemas.py`, pictures in `pictures.py`, uploads that are
  kept in `uploads.py`, waiting requests in `worker.py`, downloads in `pictures.py` (how long, how often) and `api.py`
  (how many at a time), visitors whose histories are kept in `page.py`, the memory of `/similar` by
  `_similar` of the pipeline (`modeling/pipeline_mmm4rec.py`, `_EMBEDDED` items at a time). An error's words stand
  where it is raised: `api.py` gives it a status, `markup.problem` its look.
- `page.py` is the Gradio page and its events; `markup.py` writes its HTML, the only place where a title becomes HTML;
  `page.css` and `page.js` are its looks and its clicks, `turns.js` keeps the order of these.

Everything but `api.py`, `page.py` and their helpers runs without the extra `serve`.
"""
