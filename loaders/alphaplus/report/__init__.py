"""A model's card: what it was made of, how good it is, what it looks at, how it fares.

from alphaplus import report

card = report.card(conn, "liquidation_15m", "BTC/USDT")
card.metrics                      # pandas frames
report.figures(card)["folds"]     # matplotlib figures
open("card.html", "w").write(report.page(card))
"""

from alphaplus.report.frames import Card, NothingToReportError, card
from alphaplus.report.page import page
from alphaplus.report.pictures import figures

__all__ = ["Card", "NothingToReportError", "card", "figures", "page"]
