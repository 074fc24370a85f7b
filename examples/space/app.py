"""A trained model as a Hugging Face Space: page and API of `mmm4rec serve`.

    MODEL=model python app.py    # then open http://127.0.0.1:7860

README.md says how a Space is made of this folder. `MODEL` is a folder, or a model's name on the Hub; `CATALOG`, where
it is set, the catalogue to recommend, likewise.
"""

import os

import uvicorn

from mmm4rec_hf.serving.loading import load_recommender
from mmm4rec_hf.serving.page import create_app

recommender = load_recommender(os.environ.get("MODEL", "model"), catalog=os.environ.get("CATALOG"))
app = create_app(recommender)

if __name__ == "__main__":
    # A Space is reached through a proxy, which tells under which name and whether by https.
    uvicorn.run(app, host="0.0.0.0", port=int(os.environ.get("PORT", "7860")), forwarded_allow_ips="*")
