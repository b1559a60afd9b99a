// The languages that the model speaks, and a guess of a text's language from its letters and its commonest words.
export const LANGUAGES = ["ar", "my", "zh", "da", "nl", "en", "fi", "fr", "de", "el", "he", "hi", "id", "it", "ja", "km", "ko", "lo", "ms",
  "no", "pl", "pt", "ru", "es", "sw", "sv", "tl", "th", "tr", "vi"];

const SCRIPTS = [["ja", /[\u3040-\u30ff]/g], ["zh", /[\u4e00-\u9fff]/g], ["ko", /[\uac00-\ud7af]/g], ["ar", /[\u0600-\u06ff]/g],
  ["he", /[\u0590-\u05ff]/g], ["ru", /[\u0400-\u04ff]/g], ["el", /[\u0370-\u03ff]/g], ["hi", /[\u0900-\u097f]/g],
  ["th", /[\u0e00-\u0e7f]/g], ["lo", /[\u0e80-\u0eff]/g], ["my", /[\u1000-\u109f]/g], ["km", /[\u1780-\u17ff]/g]];
const WORDS = {
  en: "the and of to in is that it for you with this", de: "der die das und ist nicht ein eine ich mit auf zu",
  fr: "le la les et est une des que pas dans je vous", es: "el los que una es por con para las no se del",
  it: "il che di una per non con sono gli della è anche", pt: "o que não uma para com os por mais como você está",
  nl: "de het een van en niet dat ik op voor zijn met", sv: "och att det som en på är av för inte den jag",
  da: "og at det er en på af ikke til jeg som den", no: "og det er en på av ikke til jeg som har å",
  fi: "ja on ei se että hän mutta oli niin kuin minä ovat", pl: "i w nie na się z do jest to że jak co",
  tr: "ve bir bu için de da ne çok ile mi ama olan", id: "yang dan di ini itu dengan untuk tidak dari akan saya ada",
  ms: "yang dan ini itu untuk tidak dengan saya awak ialah kepada boleh", vi: "và của là có không một được cho người này với những",
  tl: "ang ng sa na mga ay at ko si hindi para ito", sw: "na ya wa kwa ni katika la za kama hii yake sana",
};

// The code of the likeliest language, "" for a text that says too little.
export function guessLanguage(text) {
  const letters = (text.match(/\p{L}/gu) ?? []).length;
  if (letters < 2) return "";
  for (const [code, pattern] of SCRIPTS) {
    // Japanese has many characters of Chinese, so that a few of its own decide.
    if ((text.match(pattern) ?? []).length > letters * (code === "ja" ? 0.1 : 0.5)) return code;
  }
  const words = text.toLowerCase().match(/\p{L}+/gu) ?? [];
  let best = "", most = 0;
  for (const [code, list] of Object.entries(WORDS)) {
    const known = new Set(list.split(" "));
    const found = words.filter((word) => known.has(word)).length;
    if (found > most) [best, most] = [code, found];
  }
  return best;
}

// A language's name in the language of the page.
export function languageName(code, page) {
  return new Intl.DisplayNames([page], { type: "language" }).of(code);
}
