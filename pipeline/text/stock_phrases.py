"""Sentences that recognizers write where nobody speaks: credits of subtitles and farewells of videos that they were trained
on."""

from __future__ import annotations

#: Names of subtitlers and their firms: nobody says these by chance, so a text that contains one was invented. In the form
#: that `comparable` returns.
CREDITS: dict[str, tuple[str, ...]] = {
    "*": ("amara org", "dimatorzok", "castingwords", "otter ai", "opensubtitles", "subtitulamos tv", "addic7ed"),
    "ar": ("ترجمه نانسي قنقر", "نانسي قنقر"),
    "da": ("undertekster af nicolai winther",),
    "de": ("untertitel im auftrag des zdf", "untertitelung des zdf", "untertitel von stephanie geiges", "untertitel der amara"),
    "el": ("υποτιτλοι authorwave",),
    "en": ("transcription outsourcing llc",),
    "fi": ("suomennos yle", "tekstitys yle"),
    "fr": ("sous titrage societe radio canada", "sous titrage st 501", "sous titrage mfp"),
    "hi": ("amara org समदय",),
    "it": ("sottotitoli a cura di qtss",),
    "ja": ("字幕視聴ありがとうございました",),
    "ko": ("한글자막 by", "한국어 자막 by", "자막 제공 및 광고를 포함하고 있습니다"),
    "nl": ("tv gelderland 202",),
    "no": ("teksting av nicolai winther", "undertekster av ai media"),
    "ru": ("корректор а егорова",),
    "sv": ("undertexter fran amara", "textning stina hedin", "btistudios com"),
    "tr": ("altyazı m k", "altyazi m k"),
    "zh": ("明镜与点点栏目", "明鏡與點點欄目", "字幕由amara", "优优独播剧场", "優優獨播劇場"),
}  # fmt: skip

#: Openings of credits. Spoken sentences may begin this way too ("Subtitles by the way were awful"), so they count only if
#: they open the text and the recognizer was in doubt.
CREDIT_OPENINGS: dict[str, tuple[str, ...]] = {
    "da": ("danske tekster af",),
    "en": ("subtitles by the", "captions by the", "transcribed by https"),
    "es": ("subtitulos realizados por", "subtitulos por la comunidad", "subtitulado por la comunidad"),
    "fr": ("sous titres realises par",),
    "id": ("subtitle by", "teks oleh"),
    "it": ("sottotitoli creati dalla", "sottotitoli e revisione a cura di"),
    "ja": ("字幕作成者",),
    "nl": ("ondertitels ingediend door", "ondertiteld door de", "ondertiteling door de"),
    "pl": ("napisy stworzone przez", "napisy wykonal"),
    "pt": ("legendas pela comunidade", "legendado pela comunidade", "transcricao e legendas"),
    "ru": ("субтитры сделал", "субтитры создавал", "субтитры делал", "субтитры подогнал", "редактор субтитров"),
    "sv": ("svensktextning",),
    "zh": ("请不吝点赞", "請不吝點贊", "中文字幕志愿者", "中文字幕志願者"),
}  # fmt: skip

#: People do say these: they count only if they are the whole text and the recognizer was in doubt.
FAREWELLS: dict[str, tuple[str, ...]] = {
    "ar": ("شكرا للمشاهده", "اشتركوا في القناه"),
    "da": ("tak for at du saa med",),
    "de": ("vielen dank", "vielen dank furs zuschauen", "vielen dank fürs zuschauen", "bis zum nachsten mal"),
    "en": ("thank you", "thanks for watching", "thank you for watching", "thank you very much", "bye", "bye bye", "you",
           "please subscribe", "please subscribe to my channel", "ill see you next time", "the end"),
    "es": ("gracias", "gracias por ver el video", "suscribete", "suscribete al canal", "muchas gracias"),
    "fr": ("merci", "merci davoir regarde cette video", "abonnez vous", "merci beaucoup"),
    "he": ("תודה רבה", "תודה שצפיתם"),
    "hi": ("धन्यवाद", "देखने के लिए धन्यवाद"),
    "id": ("terima kasih telah menonton", "terima kasih"),
    "it": ("grazie", "grazie per aver guardato il video", "grazie a tutti", "grazie per la visione"),
    "ja": ("ご視聴ありがとうございました", "ありがとうございました", "チャンネル登録お願いします", "おやすみなさい"),
    "ko": ("시청해주셔서 감사합니다", "감사합니다", "구독과 좋아요 부탁드립니다", "mbc 뉴스 이덕영입니다"),
    "ms": ("terima kasih kerana menonton",),
    "nl": ("bedankt voor het kijken", "dank u wel", "bedankt"),
    "pl": ("dziękuję", "dziękuję za uwagę", "dziękuję za oglądanie"),
    "pt": ("obrigado", "obrigado por assistir", "inscreva se no canal", "tchau"),
    "ru": ("спасибо", "спасибо за просмотр", "продолжение следует", "подписывайтесь на канал", "до свидания"),
    "sv": ("tack for att ni tittade", "tack för att ni tittade", "tack"),
    "th": ("ขอบคุณ", "ขอบคุณที่รับชม", "โปรดติดตามตอนต่อไป"),
    "tl": ("salamat sa panonood", "salamat"),
    "tr": ("izlediginiz icin tesekkurler", "abone olmayi unutmayin", "teşekkürler"),
    "vi": ("cam on cac ban da theo doi", "hay subscribe cho kenh", "cảm ơn các bạn đã theo dõi", "cam on"),
    "zh": ("谢谢观看", "謝謝觀看", "谢谢大家", "謝謝大家", "多謝您的觀看", "谢谢收看", "謝謝", "谢谢"),
}  # fmt: skip
