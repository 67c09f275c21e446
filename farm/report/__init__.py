"""A run as one self-contained HTML page, and its plots as pictures.

`subject` says what a block is about, `answer` puts the answer into words, `charts_*` draw, `numbers` tabulates,
`content` puts these together, `page` makes the HTML of them and `images` the pictures.
"""
