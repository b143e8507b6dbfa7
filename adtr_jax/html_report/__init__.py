"""The report: results as one HTML file that needs neither a server nor a network.

    folder of results -> `results` (what is in it) -> `selection` (which pictures) -> `page`

`page.html`, `style.css` and the scripts beside it are what the browser runs: plain files that are
put into the page as they are. All that comes from the results goes in as JSON, and the scripts
write it as text only, so that no file name is ever taken for HTML.
"""
