"""What is one word: the patterns behind `words.py`, found by asking the official tokenizer about half a million lines.

A pattern is matched against a caption's shape (`shape_of`): its own characters, but every foreign letter is É, every
foreign mark is Ê (a mark goes on with a word and not with a number), every lone symbol is Ð, and what the tokenizer
throws away is a null. So patterns are plain ASCII. The group `word` is the word where a pattern looks ahead; what it
looked at counts for its length, as in any lexer of this kind. The longest pattern wins, of equals the first.
"""

from __future__ import annotations

import re
from collections.abc import Callable

LETTER, DIGIT, MARK, SYMBOL, NOTHING = "É", "Ñ", "Ê", "Ð", "\0"

_MARKS = re.compile(
    "[\u02c2-\u02c5\u02d2-\u02df\u02e5-\u02eb\u02ed\u02ef-\u036f\u0375\u0378\u0379\u0384\u0385\u03f6\u0483-\u0487"
    "\u055a-\u055f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0615-\u061a\u064b-\u065e\u0670\u06d6-\u06e4"
    "\u06e7-\u06ed\u06fd\u06fe\u070f\u0711\u0730-\u074c\u07a6-\u07b0\u07eb-\u07f3\u0900-\u0903\u093c\u093e-\u094e"
    "\u0951-\u0955\u0962\u0963\u0981-\u0983\u09bc\u09be-\u09c4\u09c7\u09c8\u09cb-\u09cd\u09d7\u09e2\u09e3\u0a01-\u0a03"
    "\u0a3c\u0a3e-\u0a4f\u0a81-\u0a83\u0abc\u0abe-\u0acf\u0b82\u0bbe-\u0bc2\u0bc6-\u0bc8\u0bca-\u0bcd\u0c01-\u0c03"
    "\u0c3e-\u0c56\u0d3e-\u0d44\u0d46-\u0d48\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ecd\u1885\u1886]"
)
_SYMBOLS = re.compile(
    "[\u00a1\u00a5-\u00a9\u00ac\u00ae-\u00b1\u00b4\u00b6-\u00b8\u00bf\u00d7\u00f7\u037e\u0387\u0589\u05be\u05c0\u05c3"
    "\u05c6\u05f3\u05f4\u0600-\u0603\u0606-\u060c\u0614\u061b\u061e\u061f\u066a\u066d\u06d4\u0700-\u070d\u07f6-\u07f8"
    "\u0964\u0965\u0e3f\u0e4f\u1fbd\u2016\u2017\u2020-\u2023\u2030-\u2038\u203b\u203e-\u2042\u207c-\u207e\u208c-\u208e"
    "\u20a4\u2100\u2101\u2103-\u2106\u2108\u2109\u2114\u2116-\u2118\u211e-\u2123\u2125\u2127\u2129\u212e\u213a\u213b"
    "\u2140-\u2144\u214a-\u214d\u214f\u2155-\u215e\u2190-\u2bff\u3001\u3002\u3012\u30fb\uff01-\uff0f\uff1a-\uff20"
    "\uff3b-\uff40\uff5b-\uff65\uffe0\uffe1\uffe5\uffe6]"
)
_NAMED = frozenset(
    "\u0080\u0091\u0092\u0093\u0094\u0096\u0097¢£¤«»\u00ad²³¹¼½¾֊‐‑–—―‘’‚‛“”„‟…‹›⁄₠€⅓⅔⁰⁴⁵⁶⁷⁸⁹⁺⁻₀₁₂₃₄₅₆₇₈₉₊₋"
)  # what patterns call by name
_BLANKS = frozenset(
    "\t\n\v\f\r\u0085\u2028\u2029\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u3000"
)


def shape_of(char: str) -> str:
    """The one character that stands for this one in patterns.

    Letters that came into Unicode after its version 6.1 count as letters here; the official tokenizer drops them.
    """
    if " " <= char <= "~" or char in _NAMED:
        return char
    if char in _BLANKS:
        return " "
    if char > "\uffff":
        return NOTHING
    if char.isdecimal():
        return DIGIT
    if char.isalpha():
        return LETTER
    if _MARKS.match(char):
        return MARK
    return SYMBOL if _SYMBOLS.match(char) else NOTHING


_ACCENTED = "(?i:&[aeiou](?:acute|grave|uml);)"  # HTML's é is a letter too
_L = f"(?:[A-Za-zÉÊ\u00ad]|{_ACCENTED})"
_D = "[0-9Ñ]"
_LD = f"(?:[A-Za-z0-9ÉÑÊ\u00ad]|{_ACCENTED})"
_AN = "[A-Za-z0-9ÉÑ]"
_APO = "(?:['\u0092’]|(?i:&apos;))"
_TICK = "(?:['\u0092’`\u0091‘‛]|&apos;)"
_CURLY = "(?:[\u0092’]|(?i:&apos;))"
_ENDING = "(?:[msd]|re|ve|ll)"
_WORD = f"{_L}{_LD}*(?:[.!?]{_L}{_LD}*)*"
_ELIDED = f"(?:[dDoOlL]{_TICK}(?={_AN}{{2}}))?{_AN}+"
_JOINED = f"{_ELIDED}(?:[-_֊‐‑]{_ELIDED})*"
_NUMBER = f"(?:{_D}*(?:[.:,\u00ad]{_D}+)+|{_D}+)"
_FILE = (
    "(?i:bat|bmp|c|class|cgi|cpp|dll|docx?|exe|gif|gz|html?|h|jar|java|jpe?g|mov|mp3|pdf|php|pl|png|ppt|ps|py|sql|tar"
    "|txt|wav|x|xml|zip)"
)


_AS_WRITTEN, _CAPITAL, _CAPITALS = str.lower, str.capitalize, str.upper


def _forms(words: str, *ways: Callable[[str], str]) -> str:
    """Alternatives for words that are known only when written in these ways."""
    return "|".join(way(word) for word in words.split() for way in ways)


# Abbreviations keep their full stop. Those that may end a sentence leave a lone letter behind them alone ("Dec.V").
_MAY_END = "|".join(
    (
        _forms(
            """al ala apr ariz assn aug bancorp bhd bldg blvd bros calif co colo conn corp cos ct dak dec esq est etc
            ext feb fla fri ga inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo mon mont neb nev nov oct
            okla penn plc rd rt sep sept seq sq sr sys tel tenn thu thurs tue tues univ va vt wed wis wisc wyo""",
            *(_AS_WRITTEN, _CAPITAL, _CAPITALS),
        ),
        _forms("ppte ppty pte ptes pty ptys", _AS_WRITTEN, _CAPITAL),
        _forms("ark az del ill la mass miss ore pa tex wash", _CAPITAL, _CAPITALS),
        r"(?i:ed|ph)\.[dD]",
    )
)
_TITLE = "|".join(
    (
        _forms(
            """adj adm adv alex assoc asst atty attys ave brig capt cf cie cmdr col comdr cpl dept det dr drs elec ens
            ft gen gov govs hon insp invt jos lieut lt maj messrs mlle mme mr mrs ms msgr mt natl pfc ph pres prof
            profs pvt rep reps rev sen sens sfc sgt spc st ste supt supts treas vs wm""",
            *(_AS_WRITTEN, _CAPITAL, _CAPITALS),
        ),
        _forms("mfg mtg", _AS_WRITTEN, _CAPITAL),
    )
)
_NUMBERED = "(?i:art|ca|figs?|nos?|op|pp|prop)"
# A lone letter's full stop ends a sentence before these: "plan B. The end".
_OPENERS = (
    "A(?i:|bout|ccording|dditionally|fter|n|s|t)|B(?i:ut)|E(?i:arlier)|H(?i:e|ere?|owever)|I(?i:f|n|t)|L(?i:ast)"
    r"|M(?i:any|ore|r\.|s\.)|N(?i:ow)|O(?i:nce|ne|ther|ur)|S(?i:he|ince|o|ome|uch)"
    "|T(?i:hat|heir|hen|here|hese|hey|he|his)|W(?i:e|hat|hen|hile)|Y(?i:et|ou)"
)
_NAME = r"[A-Za-z][A-Za-z0-9_:.\-]*"
_TAG = (
    rf"<(?:[!?][A-Za-z\-][^>]*|/{_NAME}[ ]*|{_NAME}(?:[ ]+{_NAME}(?:[ ]*=[ ]*(?:'[^'\n]*'|\"[^\"\n]*\"))?)*[ ]*/?[ ]*)>"
)
_MAIL = r"(?:&lt;|<)?[A-Za-z0-9][^ \n\"<>|(){}]*@(?:[^ \n\"<>|(){}.]+\.)*[^ \n\"<>|(){}.]+(?:&gt;|>)?"

RUN_ONS = (("can", "not"), ("gim", "me"), ("gon", "na"), ("got", "ta"), ("lem", "me"), ("wan", "na"))
PATTERNS: dict[str, re.Pattern[str]] = {
    name: re.compile(pattern)
    for name, pattern in {
        # two words written as one
        **{f"run_on_{first}": f"(?i:(?P<word>{first}){second})" for first, second in RUN_ONS},
        "tis": "(?P<word>'[tT])(?i:is|was)",
        "more_n": f"(?P<word>(?i:mor|more)){_APO}[nN]",
        "tag": _TAG,
        "dash": "(?i:&(?:MD|mdash|ndash);)|[\u0096\u0097–—―]",
        "entity": "(?i:&(?:HT|TL|UR|LR|QC|QL|QR|odq|cdq|quot|apos|lt|gt|nbsp|amp|#[0-9]+);)",
        # he's, they'll, don't: the word, then its ending
        "before_ending": f"(?P<word>{_WORD}){_APO}(?i:{_ENDING})",
        "before_not": f"(?P<word>[A-Za-z]*[A-MO-Za-mo-z]\u00ad*)[nN]{_TICK}[tT]",
        "word": _WORD,
        "ending": f"'(?i:{_ENDING})(?![A-Za-z])|{_CURLY}(?i:{_ENDING})",
        "not": f"[nN]{_TICK}[tT]",
        # apostrophes inside of words
        "n": f"'[nN](?:{_APO}|(?=[ \n]))|{_CURLY}[nN]{_APO}?",
        "elision": f"[lLdDjJ]{_APO}|[yY]{_APO}(?=[A-Za-zÉ])|(?i:dunkin|somethin|ol){_APO}|{_APO}(?i:em|cause|till?)",
        "decade": f"{_APO}(?:[2-9]0[sS]|[0-9]{{2}}(?=[ \n]))",
        "name": f"[A-HJ-XZn]{_TICK}[A-Za-zÉ]{{2,}}",
        "glottal": f"[A-Za-zÉ]+[aeiouyAEIOUY]{_TICK}[aeiouA-Z][A-Za-zÉ]*",
        "quaint": f"(?i:cont'd\\.|nor'easter|c'mon|e'er|o'er|ne'er|s'mores|ev'ry|li'l|nat'l)|[oO]{_APO}[oO]",
        # addresses
        "url": r"(?i:https?)://[^ \n\"<>|(){}]+[^ \n\"<>|.!?(){},\-]",
        "site": (
            r"(?:www\.(?:[^ \n\"<>|.!?(){},]+\.)+[A-Za-z]{2,4}|(?:[^ \n\"`'<>|.!?(){},-_$]+\.)+(?:com|net|org|edu))"
            r"(?:/[^ \n\"<>|()]+[^ \n\"<>|.!?(){},\-])?"
        ),
        "mail": _MAIL,
        "handle": f"@[A-Za-z_][A-Za-z_0-9]*|#{_L}+",
        # numbers
        "date": rf"{_D}{{1,2}}[\-/]{_D}{{1,2}}[\-/]{_D}{{2,4}}",
        "number": rf"[\-+]?{_NUMBER}",
        "raised": "[⁺⁻₊₋]?(?:[²³¹⁰⁴-⁹]+|[₀-₉]+)",
        "fraction": rf"(?:{_D}{{1,4}}[- ])?{_D}{{1,4}}(?:\\?/|⁄){_D}{{1,4}}",
        "phone": r"(?:\([0-9]{2,3}\)[ ]?|(?:\+\+?)?(?:[0-9]{2,4}[- ])?[0-9]{2,4}[- ])[0-9]{3,4}[- ]?[0-9]{3,5}",
        "money": "[A-Z]*\\$|#|[¢£¤\u0080₠€]",
        # words with hyphens, slashes, signs
        "joined": _JOINED,
        "slashed": r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}",
        "initials": "[A-Z]+(?:(?:(?i:&amp;)|[+&])[A-Z]+)+",
        "language": "[cC](?:\\+\\+|#)",
        # full stops that belong to a word
        "may_end": f"(?P<word>(?:{_MAY_END})\\.)(?:[\\s\\S]{{2}})?",
        "hyphenated": "[A-Za-z0-9][A-Za-z0-9.,\u00ad]*(?:-(?:[A-Za-z](?:\\.[A-Za-z])+\\.|[A-Za-z0-9\u00ad]+))+",
        "title": f"(?:{_TITLE})\\.",
        "numbered": f"(?P<word>{_NUMBERED}\\.)[ ]?{_D}",
        "letter": r"[A-Za-z](?:\.[A-Za-z])*\.",
        "letter_at_end": f"(?P<word>[A-Za-z])\\.[ ]+(?:{_OPENERS}|{_TAG})[ \\n]",
        "before_comma": f"(?P<word>(?:{_WORD}|{_JOINED}|[A-Z]+(?:[+&][A-Z]+)+)\\.)[,;:]",
        "file": rf"(?P<word>{_AN}+(?:\.{_AN}+)*\.{_FILE})[ \n.?!,]",
        # faces
        "smiley": r"(?P<word>[<>]?[:;=][\-o*']?[()DPdpO\\{@|\[\]])(?![A-Za-z0-9])",
        "eyes": r"[\-^x=~<>']_[\-^x=~<>']",
        "face": r"\((?:[\-^x=~<>'][_.]?[\-^x=~<>']|[\^x=~<>']-[\^x=~<>'])\)",
        # runs of one sign
        "dots": r"\.{3,5}|(?:\.[ ]){2,4}\.|…",
        "run": r"[-֊‐‑]+|\*+|(?:\\\*){1,3}|#+|@+|_+|[?!]+|<<|>>",
        "quote": "''|[\"']|[`\u0091-\u0094‘-‟‹›«»]{1,2}",
        "sign": f"[^ \n{NOTHING}]",
    }.items()
}
