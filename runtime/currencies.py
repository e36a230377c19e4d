"""The currencies of ISO 4217 and their decimal places.

Source: SIX Financial Information, ISO 4217 "List One" (current currencies and funds), with all amendments up to the
removal of the Bulgarian lev (BGN) in January 2026. Codes without a minor unit are left out: precious metals, bond
market units, drawing rights, XTS (for tests) and XXX (no currency).
"""

_CODES = {
    0: """
        BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF
    """,
    2: """
        AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD
        CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS
        GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD
        LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB
        PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP
        SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG YER ZAR ZMW
        ZWG
    """,
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}

DECIMALS = {code: decimals for decimals, codes in _CODES.items() for code in codes.split()}
"""The number of decimal places of each currency, by its code."""

_MICRO_DIGITS = 6
_USUAL_DECIMALS = 2


def decimal_text(currency: str, micros: int) -> str:
    """Returns an amount as a decimal number, as in `12.50`, without the currency and exactly.

    It has the decimal places of the currency, or more if the amount needs them: older releases accepted such prices.

    Args:
        currency: A code of ISO 4217. A currency that is not in the list any more gets two decimal places.
        micros: The amount in millionths of the currency's unit, not negative.
    """
    decimals = DECIMALS.get(currency, _USUAL_DECIMALS)
    units, rest = divmod(micros, 10**_MICRO_DIGITS)
    digits = f"{rest:0{_MICRO_DIGITS}}"
    fraction = digits[:decimals] + digits[decimals:].rstrip("0")
    return f"{units}.{fraction}" if fraction else str(units)
