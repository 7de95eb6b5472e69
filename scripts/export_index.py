r"""Writes the windows of an index into Qdrant or LanceDB, with pooled embeddings and regions (multivectors).

    python scripts/export_index.py --index index --lancedb vectors.lance
    python scripts/export_index.py --index index --qdrant http://localhost:6333 --name videos
    python scripts/export_index.py --index index --qdrant vectors.qdrant

A folder in place of a server's address is Qdrant in this process. Nearest neighbours by pooled embeddings are those of
the index. The databases' own score of multivectors, MaxSim, is not the model's: it takes the maximum over regions where
the model weighs them by attention, and all phrases alike. Score its best with the model to have the model's order.
"""

import argparse

from fgmm_tools.cli import UserError, make_parser, run_command


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--index", required=True, help="folder that scripts/index_videos.py made")
    parser.add_argument("--qdrant", help="address of a server, or a folder")
    parser.add_argument("--lancedb", help="folder or address of a database")
    parser.add_argument("--name", default="fgmm", help="of the collection or table")
    parser.add_argument("--replace", action="store_true", help="delete one of this name first")
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    if bool(args.qdrant) == bool(args.lancedb):
        raise UserError("Give one of --qdrant and --lancedb.")

    from fgmm_tools.search import databases
    from fgmm_tools.search.video_index import VideoIndex

    index = VideoIndex(args.index)
    if args.qdrant:
        is_server = "://" in args.qdrant
        client = databases.QdrantClient(**({"url": args.qdrant} if is_server else {"path": args.qdrant}))
        number = databases.export_to_qdrant(index, client, args.name, args.replace)
        client.close()
    else:
        database = databases.lancedb.connect(args.lancedb)
        number = databases.export_to_lancedb(index, database, args.name, args.replace)
    print(f"Wrote {number} windows to {args.name!r} in {args.qdrant or args.lancedb}.")


if __name__ == "__main__":
    run_command(parse_arguments, main)
