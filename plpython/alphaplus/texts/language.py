"""Which language a text is in, by its script and its function words.

Cheap and small enough for a database's backends. It is sure where it answers with a language, and
says ``und`` where it cannot tell; the loader then asks a larger detector.
"""

from __future__ import annotations

import re

from alphaplus.texts.cleaning import words_only

_SCRIPTS = {
    "ko": re.compile("[\uac00-\ud7af\u1100-\u11ff\u3130-\u318f]"),
    "ja": re.compile("[\u3040-\u30ff]"),
    "zh": re.compile("[\u4e00-\u9fff]"),
    "th": re.compile("[\u0e00-\u0e7f]"),
    "el": re.compile("[\u0370-\u03ff]"),
    "he": re.compile("[\u0590-\u05ff]"),
}
# Scripts that several languages share: found, they are not English, and which it is stays open.
_SHARED = re.compile("[\u0400-\u04ff\u0600-\u06ff\u0900-\u097f]")
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")

# The commonest function words; those that two of the languages share count for both.
_FUNCTION_WORDS = {
    "en": "the of and to in is it that for on with as was this be are have not but they at from by"
    " you i he she we his her my your our an or if will would can just so what when who all no do"
    " has been their there were than then its it's i'm don't about out up more how why now get got"
    " too very some any only into over after before here me us them these those which still",
    "de": "der die das und ist nicht ein eine zu den von mit für auf dem sich auch es im wie ich"
    " sie wir aber oder wird sind bei nach aus noch nur wenn über mehr durch einen hat war",
    "fr": "le la les de des et est un une du en que qui dans pour pas sur au avec ce il elle nous"
    " vous je ne se plus par mais ou sont cette son ses aux être ont fait",
    "es": "el la los las de y que en un una es por con no se del para como más pero su al lo este"
    " esta muy son ya hay fue está sus sin sobre todo cuando también",
    "pt": "o os as de e que em um uma é por com não se da do para como mais mas no na ao seu sua"
    " está muito são já foi também pelo pela isso ele ela você",
    "it": "il lo la gli le di e che un una è per con non si del della dei sono ma come più al nel"
    " questo questa anche ha alla molto dal hanno stato suo cosa",
    "nl": "de het een en van is niet dat op te in voor met zijn er maar ook als aan bij nog naar"
    " door ze wordt heeft dit uit wel geen worden",
    "tr": "bir ve bu için ile çok daha de da ne gibi olan olarak var ama sonra kadar en o ben sen"
    " mi m\u0131 değil şey",
    "pl": "i w nie na się z do to że jest o jak ale po co za od już tylko przez przy czy może tak"
    " ich jego są był",
    "id": "yang dan di ini itu dengan untuk tidak dari dalam akan ada pada juga saya ke karena"
    " bisa sudah kita mereka lebih atau oleh",
}
_OF: dict[str, tuple[str, ...]] = {}
for _language, _words in _FUNCTION_WORDS.items():
    for _one in _words.split():
        _OF[_one] = (*_OF.get(_one, ()), _language)


def detect(text: str, known_words: frozenset[str] | set[str] = frozenset()) -> tuple[str, float]:
    """(language, confidence): an ISO 639-1 code, ``und`` where it cannot be told, ``zxx`` where
    there are no words.

    known_words: words of English, such as a lexicon's, that speak for it where no function word is.
    """
    text = words_only(text)
    if not text.isascii():
        letters = sum(c.isalpha() for c in text)
        if not letters:
            return "zxx", 1.0
        counts = {name: len(script.findall(text)) for name, script in _SCRIPTS.items()}
        if counts["ja"] and counts["ja"] + counts["zh"] > letters / 2:
            return "ja", 1.0
        best = max(counts, key=lambda name: counts[name])
        if counts[best] > letters / 3:  # such a letter is a syllable or a word
            return best, min(1.0, 0.5 + counts[best] / letters / 2)
        if len(_SHARED.findall(text)) > letters / 2:
            return "und", 0.0
    words = _WORD.findall(text.lower())
    if not words:
        return "zxx", 1.0
    hits: dict[str, int] = {}
    for word in words:
        for name in _OF.get(word, ()):
            hits[name] = hits.get(name, 0) + 1
    if hits:
        ordered = sorted(hits.values(), reverse=True)
        first = max(hits, key=lambda name: (hits[name], name == "en"))
        second = ordered[1] if len(ordered) > 1 else 0
        if first == "en" or (hits[first] >= 2 and hits[first] > hits.get("en", 0)):
            share = hits[first] / len(words)
            sure = (hits[first] - second) / hits[first]
            if first == "en" or hits[first] > second:
                return first, round(min(1.0, 0.5 + sure / 4 + share), 3)
            return "und", 0.0
    if text.isascii() and any(word in known_words for word in words):
        return "en", 0.5
    return "und", 0.0
