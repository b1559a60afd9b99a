// What the page says, in three languages. Every language has every entry.
export const STRINGS = {
  en: {
    interface: "Interface", theme: "Light / dark", key: "Key", text: "Text", textHint: "Type what is to be spoken.",
    languages: "30 languages", characters: "{n} characters", looksLike: "looks like {language}", voice: "Voice",
    stored: "Stored", describe: "Describe", clone: "Clone", continue: "Continue", storedVoice: "Voice", noVoice: "none (the seed decides)",
    deleteVoice: "Delete this voice", reallyDelete: "Delete the voice {name}?", description: "Description of the voice or style",
    descriptionHint: "A calm old man, speaking slowly", record: "Record", stopRecording: "Stop recording",
    retake: "Record again", chooseFile: "Choose a file", drop: "or drop an audio file here: 3 to 30 seconds of one person",
    clipWords: "What is said in the clip", consent: "The speaker has agreed that this voice is used.",
    consentMissing: "Tick that the speaker has agreed.", consentStatement: "Ticked on the page: the speaker has agreed that this voice is used.",
    clipMissing: "Record a clip or choose a file first.", wordsMissing: "Write what is said in the clip.", name: "Name",
    saveVoice: "Keep as a voice", voiceSaved: "The voice {name} is kept.", noMicrophone: "The microphone cannot be used: {reason}",
    tooShort: "The clip is shorter than 3 seconds.", tooQuiet: "The clip is very quiet.", clipped: "The clip is too loud: it is distorted.",
    unreadable: "This browser cannot read the file; the server will try.", seconds: "{n} s", settings: "Settings", quality: "Quality", qualityBest: "best (10 steps)",
    qualityBalanced: "balanced (6 steps)", qualityFast: "fast (4 steps)", guidance: "Guidance", seed: "Seed", anotherSeed: "Another seed",
    normalize: "Write out numbers", speech: "Speech", speak: "Speak", stop: "Stop", textMissing: "Type a text first.",
    waiting: "Waiting for the first audio", firstAudio: "First audio after {ms} ms", done: "{s} s of audio, first audio after {ms} ms, {rtf} times real time{gaps}",
    gaps: ", {n} gaps", stopped: "Stopped", synthetic: "The audio is synthetic, and its file says so.", code: "The same request in code",
    history: "History", play: "Play", download: "Download", useAsVoice: "Use as a voice", reuse: "Use these settings", remove: "Remove",
    clearHistory: "Clear the history", emptyHistory: "What you make is kept here, in this browser only.", keyHint: "The key that the server's operator gave you. It is forgotten when the tab is closed.",
    save: "Save", keys: "Ctrl+Enter speaks, Escape stops.", lost: "The connection to the server was lost.", refused: "The server refused the connection: a key may be missing.",
    examples: ["A young woman, cheerful and quick", "A deep, calm male voice", "An old storyteller, slow and warm", "Whispering, excited"],
  },
  zh: {
    interface: "界面", theme: "浅色 / 深色", key: "密钥", text: "文本", textHint: "输入要朗读的内容。",
    languages: "30 种语言", characters: "{n} 个字符", looksLike: "可能是{language}", voice: "声音",
    stored: "已存声音", describe: "描述", clone: "克隆", continue: "续说", storedVoice: "声音", noVoice: "无（由种子决定）",
    deleteVoice: "删除此声音", reallyDelete: "删除声音 {name}？", description: "声音或风格的描述",
    descriptionHint: "一位平静的老人，语速缓慢", record: "录音", stopRecording: "停止录音",
    retake: "重新录音", chooseFile: "选择文件", drop: "或把音频文件拖到这里：同一人的 3 至 30 秒",
    clipWords: "片段中说的话", consent: "说话人已同意使用此声音。",
    consentMissing: "请勾选说话人已同意。", consentStatement: "在页面上勾选：说话人已同意使用此声音。",
    clipMissing: "请先录音或选择文件。", wordsMissing: "请写出片段中说的话。", name: "名称",
    saveVoice: "保存为声音", voiceSaved: "声音 {name} 已保存。", noMicrophone: "无法使用麦克风：{reason}",
    tooShort: "片段不足 3 秒。", tooQuiet: "片段音量很低。", clipped: "片段音量过大，已失真。",
    unreadable: "浏览器无法读取此文件，将由服务器尝试。", seconds: "{n} 秒", settings: "设置", quality: "质量", qualityBest: "最佳（10 步）",
    qualityBalanced: "均衡（6 步）", qualityFast: "快速（4 步）", guidance: "引导强度", seed: "种子", anotherSeed: "换一个种子",
    normalize: "展开数字", speech: "语音", speak: "朗读", stop: "停止", textMissing: "请先输入文本。",
    waiting: "等待首段音频", firstAudio: "首段音频用时 {ms} 毫秒", done: "音频 {s} 秒，首段音频用时 {ms} 毫秒，实时率 {rtf}{gaps}",
    gaps: "，中断 {n} 次", stopped: "已停止", synthetic: "音频为合成，文件中有相应标注。", code: "用代码发出同样的请求",
    history: "历史", play: "播放", download: "下载", useAsVoice: "用作声音", reuse: "使用这些设置", remove: "移除",
    clearHistory: "清空历史", emptyHistory: "生成的内容只保存在此浏览器中。", keyHint: "服务器管理员给你的密钥。关闭标签页后即被忘记。",
    save: "保存", keys: "Ctrl+Enter 朗读，Esc 停止。", lost: "与服务器的连接已断开。", refused: "服务器拒绝了连接：可能缺少密钥。",
    examples: ["一位年轻女性，欢快，语速快", "低沉平静的男声", "年长的讲述者，缓慢而温暖", "激动的耳语"],
  },
  de: {
    interface: "Oberfläche", theme: "Hell / dunkel", key: "Schlüssel", text: "Text", textHint: "Hier steht, was gesprochen wird.",
    languages: "30 Sprachen", characters: "{n} Zeichen", looksLike: "vermutlich {language}", voice: "Stimme",
    stored: "Gespeichert", describe: "Beschreiben", clone: "Klonen", continue: "Fortsetzen", storedVoice: "Stimme", noVoice: "keine (der Startwert entscheidet)",
    deleteVoice: "Diese Stimme löschen", reallyDelete: "Die Stimme {name} löschen?", description: "Beschreibung der Stimme oder des Stils",
    descriptionHint: "Ein ruhiger alter Mann, der langsam spricht", record: "Aufnehmen", stopRecording: "Aufnahme beenden",
    retake: "Neu aufnehmen", chooseFile: "Datei wählen", drop: "oder eine Audiodatei hierher ziehen: 3 bis 30 Sekunden einer Person",
    clipWords: "Was in der Aufnahme gesagt wird", consent: "Die sprechende Person ist einverstanden, dass ihre Stimme benutzt wird.",
    consentMissing: "Bitte das Einverständnis ankreuzen.", consentStatement: "Auf der Seite angekreuzt: Die sprechende Person ist einverstanden.",
    clipMissing: "Erst aufnehmen oder eine Datei wählen.", wordsMissing: "Bitte schreiben, was in der Aufnahme gesagt wird.", name: "Name",
    saveVoice: "Als Stimme behalten", voiceSaved: "Die Stimme {name} ist gespeichert.", noMicrophone: "Das Mikrofon ist nicht benutzbar: {reason}",
    tooShort: "Die Aufnahme ist kürzer als 3 Sekunden.", tooQuiet: "Die Aufnahme ist sehr leise.", clipped: "Die Aufnahme ist zu laut: sie ist verzerrt.",
    unreadable: "Dieser Browser kann die Datei nicht lesen; der Server versucht es.", seconds: "{n} s", settings: "Einstellungen", quality: "Qualität", qualityBest: "beste (10 Schritte)",
    qualityBalanced: "ausgewogen (6 Schritte)", qualityFast: "schnell (4 Schritte)", guidance: "Führung", seed: "Startwert", anotherSeed: "Anderer Startwert",
    normalize: "Zahlen ausschreiben", speech: "Sprache", speak: "Sprechen", stop: "Anhalten", textMissing: "Erst einen Text eingeben.",
    waiting: "Warten auf den ersten Ton", firstAudio: "Erster Ton nach {ms} ms", done: "{s} s Ton, erster Ton nach {ms} ms, Echtzeitfaktor {rtf}{gaps}",
    gaps: ", {n} Lücken", stopped: "Angehalten", synthetic: "Der Ton ist künstlich erzeugt, und die Datei sagt das.", code: "Dieselbe Anfrage als Code",
    history: "Verlauf", play: "Abspielen", download: "Herunterladen", useAsVoice: "Als Stimme benutzen", reuse: "Diese Einstellungen benutzen", remove: "Entfernen",
    clearHistory: "Verlauf leeren", emptyHistory: "Was entsteht, bleibt nur in diesem Browser.", keyHint: "Der Schlüssel vom Betreiber des Servers. Er wird mit dem Schließen des Tabs vergessen.",
    save: "Speichern", keys: "Strg+Enter spricht, Escape hält an.", lost: "Die Verbindung zum Server ist abgebrochen.", refused: "Der Server hat die Verbindung abgelehnt: vielleicht fehlt ein Schlüssel.",
    examples: ["Eine junge Frau, fröhlich und schnell", "Eine tiefe, ruhige Männerstimme", "Ein alter Erzähler, langsam und warm", "Aufgeregtes Flüstern"],
  },
};

let chosen = "en";

// The language of the page: the stored one, or the browser's.
export function chooseLanguage(wanted) {
  const known = [wanted, localStorage.getItem("voxmill.interface"), ...navigator.languages.map((tag) => tag.slice(0, 2))];
  chosen = known.find((tag) => tag in STRINGS) ?? "en";
  if (wanted) localStorage.setItem("voxmill.interface", chosen);
  document.documentElement.lang = chosen;
  for (const place of document.querySelectorAll("[data-text]")) place.textContent = say(place.dataset.text);
  for (const place of document.querySelectorAll("[data-placeholder]")) place.placeholder = say(place.dataset.placeholder);
  return chosen;
}

// An entry in the chosen language; {name} is replaced.
export function say(entry, values = {}) {
  const found = STRINGS[chosen][entry];
  return typeof found === "string" ? found.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole) : found;
}
