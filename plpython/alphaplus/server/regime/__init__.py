"""Market regimes: what state the market is in, as known then (nowcast) and in hindsight (verdict).

=============  =====================================================================
``states``     the six states and the shapes that the modules share
``bars``       bars as known at each time, cut into the stretches that are classified
``observe``    from bars to observations: volatility, trend, drawdown, volume
``rules``      state probabilities of one bar from thresholds
``learned``    the same from a trained model's parameters
``filtering``  the online filter: from single bars' evidence to the regime
``verdict``    the regime in hindsight: a statistical jump model
``horizon``    what the regime will be, and volatility and volume with intervals
``service``    what SQL calls
=============  =====================================================================
"""
