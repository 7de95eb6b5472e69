"""Search in one's own videos, sounds and images: an index of their windows, and queries by text, sound or picture.

Modules, each of which imports only those above it:

    settings        what indexing and a search can be told
    marks           near-black and near-still windows, and the signature by which near-duplicates are found
    folder          the folder of an index: its version, its lock, its states
    catalog         SQLite: files, their windows, what is spoken in them (full-text search)
    parts           the embeddings and regions of one file's windows
    vectors         FAISS: the pooled embeddings of all windows
    files           the media in folders: what is new, changed, renamed or gone
    corpora         a corpus as files
    subtitles       captions beside a file or inside it
    embedder        a media file to its windows
    fingerprints    whether a model is the one that an index was made with
    queries         a text, sound, picture or clip to what is compared with windows
    candidates      scores of windows: coarse first, then the model's own
    calibration     what chance gives on this index: the threshold of "nothing matches", the weight of speech
    moments         windows to moments, near-duplicates together
    video_index     `VideoIndex`: opens an index, searches in it
    states          a whole state of the index from the catalog and the parts, checked
    indexing        brings an index up to date with its folders
    times           times as people and editing programs write them
    timelines       moments to edit lists: EDL (CMX 3600), OTIO
    clips           moments to media files
    pictures        thumbnails and heat maps
    page            moments to a self-contained HTML page
    serving_limits, serving    searches over HTTP
    databases       the windows in Qdrant and LanceDB
    index_command, search_command    what scripts/index_videos.py and scripts/search_videos.py do
"""
