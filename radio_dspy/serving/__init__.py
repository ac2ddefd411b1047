"""An aligned program over HTTP: rerankers' usual routes, retrieval, answers, a page to try it."""
