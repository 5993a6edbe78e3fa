"""Generated parts of pages: what stands between two marks."""


def filled(text: str, begin: str, end: str, content: str) -> str:
    """A page with `content` between its marks."""
    before, rest = text.split(begin)
    return f"{before}{begin}\n\n{content}\n\n{end}{rest.split(end)[1]}"
