"""Plant leaks between train and test among look-alikes, and count what the audit finds.

    python benchmarks/audit.py [--leaks 10] [--clean 1000] [--seeds 3] [--tuning]
                               [--data FOLDER …] [--json]

For each language a set is made: forms filled in with other facts (families of 2 to 200 passages,
the clean look-alikes), and between train and test planted leaks of five kinds, half of them of
passages of such a form. Beside the audit stand two ways of the tutorials, equal texts and MinHash
(128 permutations over 3-grams of characters, estimated Jaccard at least 0.8), and the
near-duplicates by which groups are joined when a data set is split.

Then a folder of documents is made with such twins in different files, the commands read, chunk,
generate and split make a data set of it, and what an audit still finds between its splits is
counted; beside it, what the splits would share if near-duplicates alone joined the documents.

Words, sentence patterns and seeds are not those the audit's thresholds were tuned on; ``--tuning``
takes those instead. With ``--data`` leaks are planted into real passages too (a BEIR folder),
among look-alikes that are copies with other numbers and names, and the leaks of the data set
itself are counted (any format).
"""

import argparse
import hashlib
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from embedtune.datasets.assign import NAMES, SplitSettings, assign
from embedtune.datasets.audit import audit
from embedtune.datasets.findings import Audit
from embedtune.datasets.groups import group_by
from embedtune.datasets.source import Source, read_source
from embedtune.pipeline.stored import load_chunks, load_queries
from embedtune.records import Chunk, Counts, Query, RetrievalSet
from embedtune.relevance import judge
from embedtune.similar import near_duplicates, normalise

KINDS = ("exact", "edited", "contained", "overlapping", "re-ordered")
FAMILIES = (2, 2, 3, 3, 4, 5, 8, 12, 25, 60, 200)  # passages of one form
PERMUTATIONS = 128
JACCARD = 0.8
MONTHS = re.findall(
    r"\w+",
    "January February March April May June July August September October November December",
)

Pairs = set[tuple[int, int]]  # (train, test)


@dataclass(frozen=True)
class World:
    """Words of one language. Lower-case slots are filled once a form, the others once a passage."""

    language: str
    patterns: tuple[str, ...]
    words: dict[str, tuple[str, ...]]


def _words(**lists: str) -> dict[str, tuple[str, ...]]:
    return {kind: tuple(words.split()) for kind, words in lists.items()}


ENGLISH_TUNING = World(
    "en",
    (
        "The {a} {n} is handed over to {NAME} on {DATE} together with its {a} {n}.",
        "{CO} pays {SUM} crowns for each {n}, due within {NUM} days.",
        "Before the {n} is {v}, the {a} {n} has to be {v} and the {n} noted.",
        "A {n} that was {v} by mistake goes back to the {n} in {CITY}.",
        "If the {n} cannot be {v}, {NAME} calls {CO} and quotes {CODE}.",
        "Each {a} {n} carries the number {CODE}; it must not be {v}.",
        "The {n} of the {a} {n} was {v} at {NUM} degrees and the {n} at {NUM}.",
        "Neither the {n} nor the {a} {n} may leave {CITY} before {DATE}.",
        "Where a {n} is {v} twice, only the {a} {n} counts.",
        "Repairs to the {n} are done by {NAME} and cost {SUM} crowns an hour.",
        "The {a} {n} weighs {NUM} kilograms and is {v} with a {a} {n}.",
        "Complaints about the {n} are sent to {CO} in {CITY}, to the attention of {NAME}.",
        "Nobody but the {a} {n} has a key to the {n} where the {n} is {v}.",
        "After {NUM} hours the {n} is {v} again, this time with the {a} {n}.",
    ),
    _words(
        a="grey heavy spare narrow upper dry cold steady loose plain round outer quiet brittle "
        "rusty hollow bright coarse early faint firm gentle humid level mild modern sealed sharp",
        n="gasket ladder orchard crate barrel hinge lantern pulley saddle funnel shovel trough "
        "paddle spindle bellows gutter anvil bucket carriage cistern dynamo faucet girder hopper "
        "kiln latch mallet nozzle oven piston quarry rafter sluice tarpaulin valve winch",
        v="cleaned weighed painted measured dismantled sharpened emptied signed locked greased "
        "folded replaced inspected tightened warmed rinsed stacked labelled repaired returned",
        NAME="Orla_Venn Tobias_Quade Mirela_Stroud Hamish_Pell Yusuf_Darrow Ilse_Kettering "
        "Bram_Ostley Fenna_Wick Corin_Hale Petra_Lund Jonas_Abara Sunniva_Rell Otto_Marsh "
        "Lena_Thorpe Rufus_Dene Amara_Colt Ewan_Birk Zelda_Finch Viktor_Sorley Nadia_Crewe",
        CO="Harrowgate_Mills Blue_Anchor_Freight Tallis_and_Sons Meridian_Tools Copperfield_Works "
        "Ostrava_Parts Lowland_Dairies Pinnacle_Storage Redfern_Motors Saltmarsh_Supplies",
        CITY="Ardwick Bellhaven Corrin Dunmore Eastfold Farnley Grayling Holt Inverby Jarrow",
    ),
)  # fmt: skip
ENGLISH_HELD_OUT = World(
    "en",
    (
        "On {DATE} the committee heard {NAME} about the {a} {n} and the {n} beside it.",
        "The grant of {SUM} euros was {v} to {CO} for a {n} of {NUM} rooms.",
        "Visitors who {v} the {n} are asked to leave every {a} {n} at the desk.",
        "{NAME}, born in {CITY}, {v} the {n} for {NUM} years.",
        "File {CODE} describes how the {n} was {v} and why the {a} {n} failed.",
        "Two thirds of the {n} had been {v} when the {a} {n} arrived.",
        "As long as the {n} stays {a}, its {n} need not be {v}.",
        "Interest of {NUM} per cent falls due at {CO} on {DATE}.",
        "A {a} {n} helps whoever has never {v} a {n} before.",
        "The road from {CITY} to the {n} was {v} under reference {CODE}.",
        "Members choose {NAME} as keeper of the {n}, the {n} and the {a} {n}.",
        "Where the {n} meets the {n}, a {a} sign warns of the {n}.",
        "At {CO} the {n} costs {SUM} euros more than in {CITY}.",
        "Students {v} {NUM} samples of {a} {n} and compared them with the {n}.",
        "Without a {n} from {CITY} the {a} {n} cannot be {v}.",
    ),
    _words(
        a="marble wooden silent crowded ancient fragile polished tropical northern private "
        "gilded shallow velvet temporary scarlet famous narrow muddy elegant distant modest ornate",
        n="gallery orchestra harbour manuscript staircase fountain bakery telescope meadow chapel "
        "violin curtain glacier library parade compass beehive vineyard theatre lighthouse "
        "pavilion tapestry observatory greenhouse aquarium cathedral tramway sculpture monument",
        v="restored visited catalogued praised flooded rented admired photographed renovated "
        "abandoned insured donated surveyed rebuilt mapped guarded auctioned sketched",
        NAME="Gwendolyn_Aske Ibrahim_Solano Marguerite_Dufay Anselm_Roke Priya_Nandan Caspar_Wrede "
        "Leontine_Bax Oswin_Tarrant Delphine_Moor Kenji_Arima Rosalind_Achter Matteo_Brill "
        "Saskia_Verne Theo_Lindqvist Beatrix_Combe Idris_Farouk Noor_Haddad Emil_Castor "
        "Hanne_Solberg Lucan_Pryor Vera_Molina Jasper_Thorn Agnes_Whitlow Dario_Fenn",
        CO="the_Aurora_Trust Northgate_Bank Castellan_Holdings the_Heron_Society Vesper_Insurance "
        "Oakridge_Savings Lindenhof_Capital the_Quill_Foundation Marlowe_Partners Sable_Credit",
        CITY="Trieste Galway Uppsala Cadiz Lucerne Tromso Valletta Ghent Porto Krakow Tartu Bergen",
    ),
)  # fmt: skip
CHINESE_TUNING = World(
    "zh",
    (
        "{a}的{n}由{NAME}于{DATE}移交，同时附上{a}的{n}。",
        "{CO}每件{n}付款{SUM}元，{NUM}日内付清。",
        "在{n}{v}之前，必须先把{a}的{n}{v}好，并记下{n}的编号。",
        "误被{v}的{n}应送回{CITY}的{n}处。",
        "如果{n}无法{v}，请{NAME}致电{CO}，并报出{CODE}。",
        "每个{a}的{n}都带有编号{CODE}，不得擅自{v}。",
        "{a}的{n}在{NUM}度时{v}，{n}则在{NUM}度时{v}。",
        "{n}和{a}的{n}在{DATE}以前都不得离开{CITY}。",
        "同一个{n}被{v}两次的，只以{a}的{n}为准。",
        "{n}的维修由{NAME}负责，每小时收费{SUM}元。",
        "这个{a}的{n}重{NUM}公斤，需用{a}的{n}来{v}。",
        "有关{n}的投诉请寄到{CITY}的{CO}，由{NAME}收。",
        "除了{a}的{n}以外，谁也没有存放{n}的钥匙，那里常常{v}。",
        "过了{NUM}小时，{n}要再{v}一次，这回要用{a}的{n}。",
    ),
    _words(
        a="灰色 沉重 备用 狭窄 上层 干燥 冰冷 平稳 松动 普通 圆形 外侧 安静 脆弱 生锈 中空 "
        "明亮 粗糙",
        n="垫片 梯子 果园 木箱 油桶 铰链 灯笼 滑轮 马鞍 漏斗 铁锹 水槽 船桨 主轴 风箱 排水沟 "
        "铁砧 水桶 车厢 蓄水池 发电机 龙头 大梁 料斗 窑炉 门闩 木槌 喷嘴 烤箱 活塞 采石场 椽子 "
        "水闸 防水布 阀门 绞车",
        v="清洗 称重 上漆 测量 拆卸 磨利 倒空 签收 上锁 加油 折叠 更换 检查 拧紧 预热 冲洗 "
        "堆放 贴标",
        NAME="秦朗 陶思源 卫明珠 何柏舟 邵雨桐 顾长风 罗静怡 叶知秋 温如玉 段子昂 万向荣 "
        "尹晓棠 甘霖 柏青 阮星河 施若兰 童乐 纪远航 岑小满 贺兰山",
        CO="晨光机械厂 海蓝货运行 方圆工具社 铜山制造所 长河零件行 低地乳业 高峰仓储 "
        "红蕨汽车行 盐泽供应站 北斗农具厂",
        CITY="青石镇 白鹭洲 柳林 东湾 枫桥 石门 云溪 河口 南坪 双桥",
    ),
)  # fmt: skip
CHINESE_HELD_OUT = World(
    "zh",
    (
        "{DATE}，委员会就{a}的{n}以及旁边的{n}听取了{NAME}的意见。",
        "{SUM}欧元的资助已经{v}给{CO}，用来建造有{NUM}个房间的{n}。",
        "凡是{v}{n}的参观者，都要把{a}的{n}留在前台。",
        "{NAME}生于{CITY}，{v}{n}已有{NUM}年。",
        "卷宗{CODE}记载了{n}如何被{v}，以及{a}的{n}为何失败。",
        "{a}的{n}运到时，三分之二的{n}已经{v}完毕。",
        "只要{n}仍然{a}，它的{n}就用不着{v}。",
        "年利率为百分之{NUM}，{DATE}在{CO}结算。",
        "对于从没有{v}过{n}的人来说，{a}的{n}很有帮助。",
        "从{CITY}通往{n}的道路按照{CODE}号文件{v}。",
        "会员们推举{NAME}看管{n}、{n}和{a}的{n}。",
        "在{n}与{n}相接的地方，有一块{a}的牌子提醒注意{n}。",
        "在{CO}，{n}比在{CITY}贵{SUM}欧元。",
        "学生们{v}了{NUM}份{a}的{n}样本，并与{n}作了比较。",
        "没有来自{CITY}的{n}，{a}的{n}就不能{v}。",
    ),
    _words(
        a="大理石 木制 寂静 拥挤 古老 易碎 光滑 热带 北方 私人 镀金 浅浅 天鹅绒 临时 鲜红 "
        "著名 泥泞 优雅",
        n="画廊 乐团 港口 手稿 楼梯 喷泉 面包房 望远镜 草地 教堂 小提琴 窗帘 冰川 图书馆 游行 "
        "指南针 蜂房 葡萄园 剧院 灯塔 凉亭 挂毯 天文台 温室 水族馆 大殿 电车 雕塑 纪念碑 水库",
        v="修复 参观 编目 称赞 淹没 租用 欣赏 拍摄 翻新 遗弃 投保 捐赠 勘测 重建 绘制 守护 "
        "拍卖 描绘",
        NAME="欧阳澈 司徒静 慕容白 诸葛亭 上官云 易水寒 颜如雪 关山月 戚少商 苗若愚 水清浅 "
        "闻人远 尚可喜 龙在田 原随风 冷月华 池中鱼 金满堂 白如霜 柯南星 牧野 居安 程万里",
        CO="曙光基金会 北门银行 城堡控股 苍鹭学会 晚星保险 橡岭储蓄所 椴园资本 羽笔基金会 "
        "马洛合伙 黑貂信贷",
        CITY="里斯本 戈尔韦 乌普萨拉 加的斯 卢塞恩 特罗姆瑟 瓦莱塔 根特 波尔图 克拉科夫 "
        "塔尔图 卑尔根",
    ),
)  # fmt: skip
TUNING = (ENGLISH_TUNING, CHINESE_TUNING)
HELD_OUT = (ENGLISH_HELD_OUT, CHINESE_HELD_OUT)


# ---- passages


def a_form(world: World, rng: random.Random) -> list[str]:
    """Sentences with the wording of one form, their facts still open."""
    sentences = rng.sample(world.patterns, rng.randint(5, min(11, len(world.patterns))))
    return [re.sub(r"\{([a-z])\}", lambda slot: rng.choice(world.words[slot[1]]), sentence)
            for sentence in sentences]  # fmt: skip


def filled(form: list[str], world: World, rng: random.Random) -> list[str]:
    """The sentences of a passage: the form with facts of its own."""

    def fact(slot: re.Match[str]) -> str:
        kind = slot[1]
        if kind == "SUM":
            return str(rng.randint(20, 9999) * 10)
        if kind == "NUM":
            return str(rng.randint(2, 99))
        if kind == "CODE":
            letters = rng.choice("ABCDEFGHKLMNPRSTWXZ") + rng.choice("ABCDEFGH")
            return f"{letters}-{rng.randint(100, 9999)}"
        if kind == "DATE":
            day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(1998, 2026)
            return f"{year}年{month}月{day}日" if world.language == "zh" else (
                f"{day} {MONTHS[month - 1]} {year}")  # fmt: skip
        return rng.choice(world.words[kind]).replace("_", " ")

    return [re.sub(r"\{([A-Z]+)\}", fact, sentence) for sentence in form]


def joined(sentences: list[str], language: str) -> str:
    return ("" if language == "zh" else " ").join(sentences)


def pieces_of(text: str) -> list[str]:
    """Words with their blanks, or single ideographs."""
    return re.findall(r"[\u3400-\u9fff\uff0c\u3002]|[^\s\u3400-\u9fff\uff0c\u3002]+\s*|\s+", text)


def edited(text: str, rng: random.Random) -> str:
    """A tenth of the words (ideographs) replaced, dropped, doubled by another or mistyped."""
    pieces = pieces_of(text)
    pool = [piece for piece in pieces if not re.search(r"[\d\W]", piece.strip())] or pieces
    places = rng.sample(range(len(pieces)), max(1, round(len(pieces) / 10)))
    for place in places:
        piece = pieces[place]
        match rng.randrange(4):
            case 0:
                pieces[place] = rng.choice(pool)
            case 1:
                pieces[place] = ""
            case 2:
                pieces[place] = piece + rng.choice(pool)
            case 3:
                letters = list(piece)
                letters[rng.randrange(len(letters))] = rng.choice("eaionrtls的是在了一")
                pieces[place] = "".join(letters)
    return "".join(pieces)


def sentences_of(text: str) -> list[str]:
    return [
        part for part in re.findall(r"[^。！？.!?]*(?:[。！？]|[.!?](?=\s|$)\s*|$)", text) if part
    ]


def leak(text: str, kind: str, fresh: str, rng: random.Random) -> tuple[str, str]:
    """A train and a test passage: what is planted into which, by kind."""
    chinese = bool(re.search(r"[\u4e00-\u9fff]", text))
    glue = "" if chinese else " "
    if kind == "exact":
        return text, rng.choice((text, text.replace(" ", "  "), text.upper(), f" {text}\n"))
    if kind == "edited":
        return text, edited(text, rng)
    if kind == "re-ordered":
        parts = sentences_of(text)
        while True:
            order = rng.sample(parts, len(parts))
            if order != parts:
                return text, glue.join(part.strip() for part in order)
    pieces = pieces_of(text)
    if kind == "contained":
        size = round(len(pieces) * rng.uniform(0.3, 0.6))
        begin = rng.randint(0, len(pieces) - size)
        part = "".join(pieces[begin : begin + size])
        if rng.random() < 0.3:  # within another passage
            cut = round(len(fresh) / 2)
            return part, fresh[:cut] + glue + part + glue + fresh[cut:]
        return (text, part) if rng.random() < 0.5 else (part, text)
    # windows over a longer text that overlap by 25 to 60 % of each
    whole = pieces + pieces_of(glue + fresh)
    size = round(len(whole) * 0.55)
    step = round(size * rng.uniform(0.4, 0.75))
    step = min(step, len(whole) - size)
    one, other = "".join(whole[:size]), "".join(whole[step : step + size])
    return (one, other) if rng.random() < 0.5 else (other, one)


@dataclass
class Planted:
    """Passages of train and test; which pairs are leaks, and which passages are clean."""

    train: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)
    leaks: dict[tuple[int, int], str] = field(default_factory=dict)  # (train, test) -> kind
    clean: tuple[set[int], set[int]] = field(default_factory=lambda: (set(), set()))

    def add_clean(self, text: str, rng: random.Random) -> None:
        side = rng.random() < 0.5
        texts = self.test if side else self.train
        self.clean[side].add(len(texts))
        texts.append(text)

    def add_leak(self, pair: tuple[str, str], kind: str) -> None:
        self.leaks[len(self.train), len(self.test)] = kind
        self.train.append(pair[0])
        self.test.append(pair[1])


def generated(world: World, leaks: int, clean: int, seed: int) -> Planted:
    """``leaks`` of each kind, half of them in passages of a form that ``clean`` ones share."""
    rng = random.Random(f"{world.language}/{seed}")
    planted = Planted()
    forms: list[list[str]] = []
    made = 0
    while made < clean:
        form = a_form(world, rng)
        forms.append(form)
        for _ in range(min(rng.choice(FAMILIES), clean - made)):
            planted.add_clean(joined(filled(form, world, rng), world.language), rng)
            made += 1
    for kind in KINDS:
        for number in range(leaks):
            form = rng.choice(forms) if number % 2 else a_form(world, rng)
            text = joined(filled(form, world, rng), world.language)
            fresh = joined(filled(a_form(world, rng), world, rng), world.language)
            planted.add_leak(leak(text, kind, fresh, rng), kind)
    return planted


FACT = re.compile(
    r"\d+|(?<=[a-z,] )[A-Z][a-z]+(?: [A-Z][a-z]+)*|[〇一二三四五六七八九十百千万]{2,}"
)


def look_alike(text: str, rng: random.Random) -> str | None:
    """The same passage with other numbers and names; None where they are too few to matter."""
    facts = FACT.findall(text)
    if len(facts) < 5 or sum(map(len, facts)) < 0.06 * len(text):
        return None

    def other(match: re.Match[str]) -> str:
        found = match[0]
        if found[0].isdigit():
            return "".join(rng.choice("123456789") for _ in found)
        if found[0].isascii():
            names = ENGLISH_HELD_OUT.words["NAME"]
            return " ".join(rng.choice(names).split("_")[0] for _ in found.split())
        return "".join(rng.choice("二三四五六七八九十百") for _ in found)

    return FACT.sub(other, text)


def planted_in(folder: Path, leaks: int, clean: int, seed: int) -> Planted:
    """Leaks planted into real passages, look-alikes made of others, and the rest as it is."""
    rng = random.Random(seed)
    rows = [json.loads(line) for line in (folder / "corpus.jsonl").open(encoding="utf-8")]
    texts = [row["text"] for row in rows if len(sentences_of(row["text"])) >= 4]
    rng.shuffle(texts)
    planted = Planted()
    for kind in KINDS:
        for _ in range(min(leaks, len(texts) // 15)):
            planted.add_leak(leak(texts.pop(), kind, texts.pop(), rng), kind)
    made = 0
    while texts and made < clean:
        text = texts.pop()
        twin = look_alike(text, rng)
        if twin is not None:
            planted.clean[0].add(len(planted.train))
            planted.train.append(text)
            planted.clean[1].add(len(planted.test))
            planted.test.append(twin)
            made += 1
    planted.train += texts
    return planted


# ---- ways to look for leaks


def equal_texts(planted: Planted) -> Pairs:
    train: dict[str, list[int]] = {}
    for number, text in enumerate(planted.train):
        train.setdefault(normalise(text), []).append(number)
    return {(one, other) for other, text in enumerate(planted.test)
            for one in train.get(normalise(text), ())}  # fmt: skip


def minhash(planted: Planted) -> Pairs:
    """Pairs of an estimated Jaccard of at least 0.8, all pairs compared (LSH finds no more)."""
    rng = np.random.default_rng(1)
    factors = rng.integers(1, 2**31, PERMUTATIONS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    shifts = rng.integers(0, 2**63, PERMUTATIONS, dtype=np.uint64)

    def signature(text: str) -> np.ndarray:
        text = normalise(text)
        grams = {text[at : at + 3] for at in range(max(1, len(text) - 2))}
        values = np.array([int.from_bytes(hashlib.blake2b(gram.encode(), digest_size=8).digest())
                           for gram in grams], dtype=np.uint64)  # fmt: skip
        return (values[:, None] * factors + shifts).min(axis=0)

    train, test = (np.array([signature(text) for text in texts])
                   for texts in (planted.train, planted.test))  # fmt: skip
    return {(int(one), other) for other, own in enumerate(test)
            for one in np.flatnonzero((train == own).mean(axis=1) >= JACCARD)}  # fmt: skip


def joined_by_split(planted: Planted) -> Pairs:
    split = len(planted.train)
    pairs = near_duplicates(planted.train + planted.test)
    return {(one, other - split) for one, other in pairs if one < split <= other}


def audited(planted: Planted) -> Pairs:
    """What the audit says of the same passages as a BEIR folder, a question a passage."""
    with tempfile.TemporaryDirectory() as folder:
        rows = {f"{split}-{number}": text
                for split, texts in (("train", planted.train), ("test", planted.test))
                for number, text in enumerate(texts)}  # fmt: skip
        write(Path(folder), rows)
        found = audit(read_source(folder))
    pairs = set()
    for leak in found.leaks:
        if leak.what == "passage":
            sides = dict((side.split("-")) for side in (leak.item, leak.other))
            pairs.add((int(sides["train"]), int(sides["test"])))
    return pairs


def write(folder: Path, passages: dict[str, str]) -> None:
    (folder / "qrels").mkdir()
    with (
        (folder / "corpus.jsonl").open("w", encoding="utf-8") as corpus,
        (folder / "queries.jsonl").open("w", encoding="utf-8") as queries,
    ):
        for name, text in passages.items():
            corpus.write(json.dumps({"_id": name, "text": text}) + "\n")
            queries.write(json.dumps({"_id": f"q-{name}", "text": f"passage {name}?"}) + "\n")
    for split in ("train", "test"):
        lines = [f"q-{name}\t{name}\t1" for name in passages if name.startswith(split)]
        (folder / "qrels" / f"{split}.tsv").write_text(
            "\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n"
        )


WAYS: dict[str, Callable[[Planted], Pairs]] = {
    "equal texts": equal_texts,
    f"MinHash {JACCARD}": minhash,
    "near-duplicates": joined_by_split,
    "audit": audited,
}


def measure(planted: Planted) -> Iterator[dict]:
    """One row a way: what it finds of the planted leaks, and how many clean passages it accuses."""
    for way, find in WAYS.items():
        begin = time.process_time()
        pairs = find(planted)
        seconds = time.process_time() - begin
        found = Counter(kind for pair, kind in planted.leaks.items() if pair in pairs)
        false = [pair for pair in pairs if pair not in planted.leaks
                 and pair[0] in planted.clean[0] and pair[1] in planted.clean[1]]  # fmt: skip
        accused = {("train", one) for one, _ in false} | {("test", other) for _, other in false}
        yield {
            "way": way,
            "found": {kind: found[kind] for kind in KINDS},
            "planted": dict(Counter(planted.leaks.values())),
            "false": len(accused),
            "clean": sum(map(len, planted.clean)),
            "seconds": round(seconds, 1),
        }


def documents(world: World, twins: int, seed: int) -> dict[str, list[str]]:
    """A hundred documents of four passages, and twins of each kind put into two of them each."""
    rng = random.Random(f"{world.language}/documents/{seed}")

    def passage() -> str:
        return joined(filled(a_form(world, rng), world, rng), world.language)

    made = {f"{world.language}-{number:03d}": [passage() for _ in range(4)]
            for number in range(100)}  # fmt: skip
    for kind in KINDS:
        for _ in range(twins):
            for name, text in zip(
                rng.sample(sorted(made), 2), leak(passage(), kind, passage(), rng), strict=True
            ):
                made[name].append(text.strip())
    return made


def after_the_data_stage(world: World, twins: int, seed: int) -> dict:
    """What is left of planted twins between the splits that the commands make of documents."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "in").mkdir()
        for name, passages in documents(world, twins, seed).items():
            text = "\n\n".join(f"# {number + 1}. {name}\n\n{passage}"
                               for number, passage in enumerate(passages))  # fmt: skip
            (folder / "in" / f"{name}.md").write_text(text, encoding="utf-8")
        for command in (
            ("read", "in", "--out", "documents"),
            ("chunk", "documents", "--out", "chunks"),
            ("generate", "chunks", "--out", "queries", "--set", "queries.from=extractive"),
            ("split", "chunks", "queries", "--out", "data"),
        ):
            subprocess.run([sys.executable, "-m", "embedtune", *command, "-q"], cwd=folder,
                           check=True, stdout=subprocess.DEVNULL)  # fmt: skip
        found = audit(read_source(folder / "data"))
        chunks, queries = load_chunks(folder / "chunks"), load_queries(folder / "queries")
    plain = joined_by_near_duplicates(chunks, queries)
    return {
        "language": world.language,
        "seed": seed,
        "planted": twins * len(KINDS),
        "queries": dict(found.queries),
        "left": {f"{what} {kind}": count for what, kind, count in found.leaks_by_kind()},
        "left by near-duplicates alone": {
            f"{what} {kind}": count for what, kind, count in plain.leaks_by_kind()
        },
    }


def joined_by_near_duplicates(chunks: tuple[Chunk, ...], queries: tuple[Query, ...]) -> Audit:
    """The audit of a split whose documents are joined by near-duplicates and nothing else."""
    pairs = near_duplicates([chunk.embedded for chunk in chunks])
    qrels = judge(queries, chunks, pairs)
    index = {chunk.id: chunk for chunk in chunks}
    judged = {query: frozenset(own) for query, own in qrels.items()}
    by_id = {query.id: query for query in queries}
    joins = [(chunks[one].id, chunks[other].id) for one, other in pairs]
    grouping = group_by("document", index, judged, by_id, joins)
    parts = assign(grouping.of_query, by_id, SplitSettings(), NAMES, [])
    made = {name: {query: qrels[query] for query, part in parts.items() if part == name}
            for name in NAMES}  # fmt: skip
    data = RetrievalSet("plain", chunks, queries, made)
    return audit(Source("beir", data, {}, {}, (), (), (), Counts(0, 0)))


def own_leaks(folder: Path) -> dict:
    """The leaks of a data set itself, by kind; and what the split's definition says of it."""
    source = read_source(folder)
    begin = time.process_time()
    found: Audit = audit(source)
    seconds = time.process_time() - begin
    row = {
        "data": f"{folder.parent.name}/{folder.name}"
        if folder.name in ("en", "zh")
        else folder.name,
        "texts": found.passages or sum(found.queries.values()),
        "seconds": round(seconds, 1),
    }
    row |= {f"{what} {kind}": count for what, kind, count in found.leaks_by_kind()}
    if found.passages:
        split_of: dict[str, set[str]] = {}
        for split in ("train", "dev", "test"):
            for grades in source.data.qrels.get(split, {}).values():
                for chunk in grades:
                    split_of.setdefault(chunk, set()).add(split)
        ids = [chunk.id for chunk in source.data.chunks]
        close = near_duplicates([chunk.embedded for chunk in source.data.chunks])
        row["near-duplicates"] = sum(
            bool(split_of.get(ids[one]) and split_of.get(ids[other]))
            and split_of[ids[one]] != split_of[ids[other]]
            for one, other in close
        )
    return row


def _told(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "nothing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--leaks", type=int, default=10, help="of each kind and language")
    parser.add_argument("--clean", type=int, default=1000, help="look-alikes of each language")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tuning", action="store_true")
    parser.add_argument("--data", nargs="*", type=Path, default=[])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    tables: dict[str, list[dict]] = {}
    worlds, first = (TUNING, 1) if options.tuning else (HELD_OUT, 2001)
    for seed in range(options.seeds):
        for world in worlds:
            planted = generated(world, options.leaks, options.clean, first + seed)
            tables[f"{world.language}, seed {first + seed}"] = [*measure(planted)]
    for folder in options.data:
        if (folder / "corpus.jsonl").exists():
            planted = planted_in(folder, options.leaks, options.clean, 7)
            tables[f"planted into {folder.name}"] = [*measure(planted)]
    staged = [
        after_the_data_stage(world, options.leaks, first + seed)
        for seed in range(options.seeds)
        for world in worlds
    ]
    own = [own_leaks(folder) for folder in options.data]
    if options.json:
        print(json.dumps({"planted": tables, "staged": staged, "own": own}, ensure_ascii=False))
        return
    for name, rows in tables.items():
        print(f"\n{name}")
        head = "".join(f"{kind:>13}" for kind in KINDS)
        print(f"  {'':16}{head}{'false alarms':>16}{'CPU s':>8}")
        for row in rows:
            cells = "".join(
                f"{row['found'][kind]:>8} / {row['planted'].get(kind, 0):<2}" for kind in KINDS
            )
            share = row["false"] / max(1, row["clean"])
            print(f"  {row['way']:16}{cells}{row['false']:>8} ({share:.1%}){row['seconds']:8.1f}")
    for row in staged:
        print(f"\ndocuments in {row['language']}, seed {row['seed']}: {row['planted']} twins; left "
              f"between the splits: {_told(row['left'])} (joined by near-duplicates alone: "
              f"{_told(row['left by near-duplicates alone'])})")  # fmt: skip
    for row in own:
        print(f"\n{row.pop('data')}: " + ", ".join(f"{value} {key}" for key, value in row.items()))


if __name__ == "__main__":
    main()
